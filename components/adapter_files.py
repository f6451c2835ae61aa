"""The two files of an adapter in PEFT's layout."""

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_FILES = (SETTINGS, WEIGHTS)
