"""All private names of other libraries that this package uses, each with a reason.

`tests/test_private_names.py` looks for others, and reports which installed version changed one of these. The hooks that PEFT calls in a
`BaseTuner` are not included: they are how a tuner is written, and `medfmc_hf/tuners/base.py` has them.
"""

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


def is_uploaded(operation: "CommitOperationAdd") -> bool:
    """Whether `preupload_lfs_files` sent a file's content; if not, the Hub wants it in the commit itself. No public API tells."""
    return operation._is_uploaded


def uploaded_operation(path: str, sha256: str, size: int) -> "CommitOperationAdd":
    """An operation in the state after `preupload_lfs_files`: without content, with hash and size.

    An interrupted push resumes with files that an earlier process sent, and there is no public way to mark them as sent.
    """
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.lfs import UploadInfo

    operation = CommitOperationAdd(path, b"")
    operation.upload_info = UploadInfo(sha256=bytes.fromhex(sha256), size=size, sample=b"")
    operation._upload_mode, operation._should_ignore, operation._is_uploaded = "lfs", False, True
    return operation


def add_member(enum: type[Enum], name: str) -> None:
    """Add a member with this name and value to an enum of strings, unless it exists.

    `peft.utils.register_peft_method` requires an entry in `PeftType`, and enums cannot be extended publicly.
    """
    if name in enum.__members__:
        return
    entry: Any = str.__new__(enum, name)  # type: ignore[type-var]  # an enum of strings is a subclass of str
    entry._name_, entry._value_ = name, name
    type.__setattr__(enum, name, entry)
    enum._member_names_.append(name)
    enum._member_map_[name] = entry
    enum._value2member_map_[name] = entry
