"""Plain int8 by ONNX Runtime's own quantiser: what a user without a search would take."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from autocompress.artifact.runtime import Array, open_session
from autocompress.core.files import write_bytes
from autocompress.errors import ExportError, MissingFileError, explain


def static_int8(
    original: Path,
    out: Path,
    feeds: Iterable[Mapping[str, Array]],
    *,
    reduce_range: bool = False,
) -> Path:
    """Quantise an fp32 ONNX file as ONNX Runtime's documentation recommends.

    The file is prepared by `quant_pre_process`; then activations become
    8-bit unsigned and weights 8-bit signed integers, one scale per channel,
    between QuantizeLinear and DequantizeLinear, ranges taken as they are seen.

    Args:
        original: The fp32 file.
        out: The file to write.
        feeds: Calibration batches, arrays by input name.
        reduce_range: Whether weights keep to 7 bits, as is recommended where
            integer kernels clip.

    Returns:
        `out`.

    Raises:
        MissingFileError: If there is no such file.
        ExportError: If the quantiser refuses the file, or the runtime the result.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # ships no types
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Any:
            return next(self._feeds, None)

    if not original.is_file():
        raise MissingFileError(
            explain(f"'{original}'", expected="an ONNX file", got="nothing", remedy="check it")
        )
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        try:
            quant_pre_process(str(original), str(prepared))
            quantize_static(
                str(prepared),
                str(quantised),
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=reduce_range,
            )
            open_session(quantised, threads=1)
        except Exception as error:  # the quantiser raises whatever its passes do
            raise ExportError(
                explain(
                    f"'{original}'",
                    expected="a file that ONNX Runtime can quantise",
                    got=f"{type(error).__name__}: {' '.join(str(error).split())}",
                    remedy="leave out plain int8, or simplify the model",
                )
            ) from error
        write_bytes(out, quantised.read_bytes())
    return out
