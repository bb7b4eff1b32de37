"""Names of the files that an adaptation is saved in, and of the PEFT types whose adapters need this package."""

PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
HEAD = "head.safetensors"  # fitted to features of a frozen backbone
WHOLE = "model.safetensors"  # all weights, as transformers saves them
TRAINED = "trained.safetensors"  # those of the backbone's own weights that were trained, and the head
ORIGIN = "backbone.json"  # which backbone was adapted
WEIGHTS = (PEFT_WEIGHTS, HEAD, WHOLE, TRAINED)

OUR_PEFT_TYPES = ("VPT", "BOTTLENECK")
