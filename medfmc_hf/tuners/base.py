"""Base classes of this package's tuners, which find their targets, train the head, wrap whole modules and never merge."""

from abc import abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from ..errors import MedfmcError
from ..models.structure import structure_of
from ..progress import notify


@dataclass
class VisionTunerConfig(PeftConfig):
    """Options of every tuner in this package.

    Attributes:
        target_modules: names of the modules to adapt; None for the method's own targets, found by the model structure.
        exclude_modules: names of modules to leave out.
        modules_to_save: names of modules that are fully trained besides the adapter; None for the classification head.
    """

    target_modules: list[str] | set[str] | str | None = None
    exclude_modules: list[str] | set[str] | str | None = None
    modules_to_save: list[str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.target_modules = set(self.target_modules) if isinstance(self.target_modules, list) else self.target_modules
        self.exclude_modules = set(self.exclude_modules) if isinstance(self.exclude_modules, list) else self.exclude_modules


class VisionTunerLayer(nn.Module, BaseTunerLayer):
    """A module of the backbone with adapters around it."""

    def __init__(self, base_layer: nn.Module):
        super().__init__()
        self.base_layer = base_layer
        self.merged_adapters = []

    def __getattr__(self, name: str) -> Any:
        """Fall back to the wrapped module, because models read attributes of their blocks."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
            return getattr(self.base_layer, name)

    @property
    def working_adapters(self) -> list[str]:
        """The adapters that take part in `forward`."""
        return [] if self.disable_adapters else [name for name in self.active_adapters if name in self._all_available_adapter_names()]

    def place(self, adapter_name: str, inference_mode: bool) -> None:
        """Move a new adapter to the device of the wrapped module and make it active, as PEFT's layers do."""
        self._move_adapter_to_device_of_base_layer(adapter_name, device=next(self.base_layer.parameters()).device)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def release(self) -> None:
        """Undo the changes that wrapping made to the wrapped module, such as hooks."""

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise MedfmcError(f"a {type(self).__name__} cannot be merged into the module it wraps; keep the adapter, or `unload()` it.")


class VisionTuner(BaseTuner):
    """A PEFT tuner that finds its targets by the model structure of an image classifier."""

    tuner_layer_cls: type[VisionTunerLayer]
    method: str  # its name in messages
    why_not_merged: str

    def _pre_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        self.structure = structure_of(model, head_needed=config.modules_to_save is None)

    @abstractmethod
    def _find_targets(self, config: Any) -> list[str]:
        """Names of the method's target modules; raises MedfmcError if it does not apply to the architecture."""

    @abstractmethod
    def _describe(self, config: Any) -> str:
        """A short description of what is added where."""

    @abstractmethod
    def _update(self, layer: Any, config: Any, adapter_name: str, key: str) -> None:
        """Add the weights of an adapter to a layer."""

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> PeftConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = set(self._find_targets(peft_config))
        if peft_config.modules_to_save is None:
            peft_config.modules_to_save = list(self.structure.heads)
        if not peft_config.inference_mode:
            trained = ", ".join(peft_config.modules_to_save) or "nothing else"
            notify(f"{self.method}: {self._describe(peft_config)}; also trained: {trained}")
        return peft_config

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target if isinstance(target, VisionTunerLayer) else self._wrap(target, current_key)
        self._update(layer, peft_config, adapter_name, current_key)
        layer.place(adapter_name, peft_config.inference_mode)
        if layer is not target:
            self._replace_module(parent, target_name, layer, target)

    def _wrap(self, target: nn.Module, key: str) -> VisionTunerLayer:
        return self.tuner_layer_cls(target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        if isinstance(child, VisionTunerLayer):
            child.release()
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        raise MedfmcError(f"{self.method} cannot be merged into the backbone: {self.why_not_merged} Keep the adapter, or `unload()` it.")

    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> AbstractContextManager[None]:
        if kwargs.get("adapter_names") is not None:
            raise MedfmcError(f"{self.method} does not support mixed batches: call set_adapter, and run one adapter at a time.")
        return nullcontext()
