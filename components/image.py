"""How every step becomes a KFP component: an image of ours, nothing installed at run time.

A step that computes on a GPU has the worker's image, which brings CUDA along; the others have one without, which is a
fraction of its size and starts where no GPU is.
"""

from components import __version__

WORKER = f"loraloom/worker:{__version__}"
CPU = f"loraloom/cpu:{__version__}"
