"""What this package uses of other libraries that they call private, each with the reason; nothing else here uses such a name.

`tests/test_private_names.py` looks for others, and says which installed version changed one of these. The hooks that PEFT calls in a
`BaseTuner` are not among them: they are how a tuner is written, and `medfmc_hf/tuners/base.py` lists them.
"""

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd


def is_uploaded(operation: "CommitOperationAdd") -> bool:
    """Whether `preupload_lfs_files` sent a file's content; if not, the Hub wants it in the commit itself. Nothing public says so."""
    return operation._is_uploaded


def uploaded_operation(path: str, sha256: str, size: int) -> "CommitOperationAdd":
    """An operation as `preupload_lfs_files` leaves it: content gone, hash and size known.

    A push that was interrupted goes on with what an earlier process sent, and there is no public way to say that it is sent.
    """
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.lfs import UploadInfo

    operation = CommitOperationAdd(path, b"")
    operation.upload_info = UploadInfo(sha256=bytes.fromhex(sha256), size=size, sample=b"")
    operation._upload_mode, operation._should_ignore, operation._is_uploaded = "lfs", False, True
    return operation


def add_member(enum: type[Enum], name: str) -> None:
    """Give an enum of strings one more member, of that name and value; nothing happens if it has it.

    `peft.utils.register_peft_method` demands an entry in `PeftType`, and an enum has no public way to grow.
    """
    if name in enum.__members__:
        return
    entry: Any = str.__new__(enum, name)  # type: ignore[type-var]  # an enum of strings is one of both
    entry._name_, entry._value_ = name, name
    type.__setattr__(enum, name, entry)
    enum._member_names_.append(name)
    enum._member_map_[name] = entry
    enum._value2member_map_[name] = entry
