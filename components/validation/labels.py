"""What pages, figures and sentences call predictors and partitions."""

PREDICTORS = {
    "surrogate": "the surrogate",
    "shifted": "the surrogate, each dataset's mean put right",
    "constant": "a constant: each dataset's mean",
    "features": "similarity of mean gradients",
    "embeddings": "similarity of mean embeddings",
}
PARTITIONS = {
    "chosen": "chosen groups",
    "one": "one group",
    "each": "a group each",
    "spectral": "spectral clustering",
    "random": "random partitions, mean",
}
