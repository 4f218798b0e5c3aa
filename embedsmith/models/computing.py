"""In which precision an embedding model computes, and what is refused where that is one to read texts in alone."""

from __future__ import annotations

from typing import TypeVar

import torch

from embedsmith.errors import SettingsError
from embedsmith.models.precision import cast, check_reads_int8, mix, mixes, resolve_dtype
from embedsmith.models.remembered import Remembered
from embedsmith.models.roles import ReadsRoles
from embedsmith.models.settings import ReadingDtype

Model = TypeVar("Model", bound="Computes")


class Computes(ReadsRoles):
    """A SentenceTransformer that computes in the precision that it was asked for."""

    _remembered: Remembered
    _asked: ReadingDtype | None = None
    """The precision that was asked for, where the type of the weights does not say it."""
    keeps_short: bool = False
    """Whether matrices of linear layers stay in bfloat16, as they were opened: adapters over them are trained."""

    def use_dtype(self: Model, dtype: ReadingDtype) -> Model:
        """Compute in another precision from now on; return the model.

        Args:
            dtype: `auto` is, on a GPU, bfloat16 where it has that. On a CPU with matmuls in bfloat16 it is float32 for
                short texts, and for `embed`'s others all matmuls in bfloat16, all else in float32 (see `SHORT_TEXT`);
                weights that are in bfloat16 already are multiplied in it always. Elsewhere `auto` is float32.
                `bfloat16` on such a CPU is all matmuls in it for all texts, and all else in float32: a fifth faster,
                and more of the texts get vectors that are off (a cosine by 0.0006, all-MiniLM-L6-v2). On a CPU without
                it `bfloat16` is float32. `int8`, on a CPU only, has the matmuls of linear layers in int8, all
                else in float32 (see `cpu.quantised`). Such a model reads texts. It is not trained or saved.

        Raises:
            SettingsError: `int8` on another device, or on a CPU where nothing multiplies it.
        """
        if dtype == "int8":
            check_reads_int8(self.device.type)
        self._asked = dtype if dtype == "int8" or mixes(dtype, self.device.type) else None
        self._remembered.copies = self._remembered.small = None
        self.keeps_short = False
        if mixes(dtype, self.device.type):
            return mix(self, all_short=dtype == "bfloat16")
        return cast(self, resolve_dtype(dtype, self.device.type))

    @property
    def is_mixed(self) -> bool:
        """Whether some matrices are multiplied in bfloat16 and all else is computed in float32: see `use_dtype`.

        Not of a model that was put elsewhere since, or made one of another type.
        """
        if self.keeps_short:
            return self.dtype == torch.float32
        return self._asked in ("auto", "bfloat16") and self._is_exact_on_cpu

    @property
    def shortens(self) -> bool:
        """Whether `embed` multiplies in bfloat16 for all but short texts."""
        return self._asked == "auto" and self._is_exact_on_cpu

    @property
    def is_quantised(self) -> bool:
        """Whether linear layers multiply in int8."""
        return self._asked == "int8" and self._is_exact_on_cpu

    @property
    def _is_exact_on_cpu(self) -> bool:
        """Whether the weights are on a CPU, and those that are in no shorter type in float32."""
        return self.device.type == "cpu" and self.dtype == torch.float32

    def check_is_exact(self, what: str) -> None:
        """Refuse what a model in int8 is not made for.

        Args:
            what: is done with the model, such as "saved".

        Raises:
            SettingsError: the model computes in int8.
        """
        if self.is_quantised:
            raise SettingsError(
                f"{self.called}: computes in int8, in which a model reads texts and is not {what}",
                hint='open it in float32, or call use_dtype("float32") first',
            )
