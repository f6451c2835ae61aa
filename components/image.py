"""How every step becomes a KFP component: same image, nothing installed at run time."""

from components import __version__

IMAGE = f"loraloom/worker:{__version__}"
