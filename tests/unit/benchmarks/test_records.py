"""What a report says of the machine."""

import pytest

from benchmarks import records


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("fpu avx avx2 sse", "Some CPU with AVX2, "),
        ("avx2 avx512f avx512_vnni avx_vnni", "Some CPU with AVX2, AVX-512, VNNI, "),
        ("fpu", "Some CPU, "),
    ],
)
def test_the_hardware_names_what_int8_and_bfloat16_depend_on(tmp_path, monkeypatch, flags, told):
    info = tmp_path / "cpuinfo"
    info.write_text(
        f"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: {flags}\n\nprocessor\t: 1\n"
    )
    monkeypatch.setattr(records, "_CPU_INFO", info)
    assert records.hardware().startswith(told)
    assert records.hardware().endswith("GiB memory")


def test_without_cpuinfo_the_hardware_is_told_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "_CPU_INFO", tmp_path / "missing")
    assert " cores, " in records.hardware()
