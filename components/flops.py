"""What a pass through the model costs, by formula.

Multiplying a token with P weights takes 2 P FLOPs; the backward pass through activations takes as many again. Adapter
weights are small but get a gradient of their own while training. Attention multiplies T x T scores twice a layer,
counted in full as torch's FlopCounterMode does (masked halves included). A test holds the formula against that
counter. Embedding look-ups, norms and softmaxes are left out, as is the output matrix, which meets a handful of
positions only.
"""

from dataclasses import dataclass

from peft import PeftModel

from components.language_model import Base


@dataclass(frozen=True)
class PassCost:
    """FLOPs of one model with its adapter.

    Attributes:
        base: weights of the base's linear layers.
        adapter: weights of the adapter.
        attention: layers x width of the attention, what T^2 is multiplied with.
    """

    base: int
    adapter: int
    attention: int

    def forward(self, tokens: int, squared: int) -> int:
        """A forward pass over ``tokens`` tokens in sequences whose squared lengths sum to ``squared``."""
        return 2 * (self.base + self.adapter) * tokens + 4 * self.attention * squared

    def gradients(self, tokens: int, squared: int) -> int:
        """Per-sample gradients: forward, backward through activations, and the two products that make dA and dB."""
        return 2 * self.forward(tokens, squared) + 2 * self.adapter * tokens + 4 * self.attention * squared

    def training(self, tokens: int, squared: int) -> int:
        """A training step: the same passes, the adapter's gradient summed over the batch."""
        return self.gradients(tokens, squared)


def pass_cost(base: Base, model: PeftModel) -> PassCost:
    """The cost of ``model``, an adapter on ``base``."""
    settings = base.model.config
    adapter = sum(p.numel() for name, p in model.named_parameters() if ".lora_A." in name or ".lora_B." in name)
    heads = settings.num_attention_heads
    width = heads * (getattr(settings, "head_dim", None) or settings.hidden_size // heads)
    return PassCost(base.linear_parameters, adapter // len(model.peft_config), settings.num_hidden_layers * width)
