"""What `check-kernels` reads in machine code: that each kernel waits for earlier ones before all else."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

import sass

# Two kernels as nvdisasm prints them: the first as it should be, with the loads that may come early.
DISASSEMBLY = """
//--------------------- .text.embed         --------------------------
\t.section\t.text.embed,"ax",@progbits
.text.embed:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   S2R R2, SR_TID.X ;
        /*0020*/                   ULDC.64 UR4, c[0x0][0x208] ;
        /*0030*/                   PREEXIT ;
        /*0040*/                   ACQBULK ;
        /*0050*/                   ISETP.GE.U32.AND P0, PT, R0, UR6, PT ;
        /*0060*/               @P0 EXIT ;
        /*0070*/                   LDG.E.CONSTANT R11, desc[UR4][R2.64] ;
        /*0080*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;
        /*0090*/                   HMMA.16816.F32.BF16 R8, R4, R6, R8 ;
        /*00a0*/                   EXIT ;
//--------------------- .text.norm          --------------------------
\t.section\t.text.norm,"ax",@progbits
.text.norm:
        /*0000*/                   EXIT ;
"""


def test_code_is_told_apart_by_kernel() -> None:
    kernels = sass.kernels(DISASSEMBLY)
    assert list(kernels) == ["embed", "norm"]
    assert [sass.count(code, "HMMA") for code in kernels.values()] == [2, 0]


def test_what_is_fused_is_counted() -> None:
    lines = (
        "FFMA.FTZ R0, R1, R2, R3 ;",
        "@!P0 FADD R0, R1, R2 ;",
        "FADD R0, R1, -R2 ;",
        "IMAD R0, R1, R2, R3 ;",
    )
    code = "".join(f"        /*{at:04x}*/   {line}\n" for at, line in enumerate(lines))
    assert sass.arithmetic(code) == {"FFMA": 1, "FADD": 2}


def test_a_kernel_that_waits_first_is_good() -> None:
    assert sass.order_faults(sass.kernels(DISASSEMBLY)["embed"]) == []


@pytest.mark.parametrize(
    ("line", "instead", "faults"),
    [
        ("ACQBULK ;", "NOP ;", ["begins without ACQBULK"]),
        ("PREEXIT ;", "NOP ;", ["begins without PREEXIT"]),
        ("    ACQBULK ;", "@P0 ACQBULK ;", ["begins without ACQBULK"]),
        ("    PREEXIT ;", "@!P1 EXIT ;", ["begins without PREEXIT", "begins without ACQBULK"]),
        ("    PREEXIT ;", "@P0 BRA `(.L_x_1) ;", ["begins without PREEXIT", "begins without ACQBULK"]),
        ("PREEXIT ;", "BRA `(.L_x_1) ;", ["begins without PREEXIT", "begins without ACQBULK"]),
    ]
    + [
        ("S2R R2, SR_TID.X ;", f"{name}.E [R2] ;", [f"reaches device memory ({name}) before ACQBULK"])
        for name in ("LDG", "LD", "STG", "LDGSTS", "ATOMG", "RED", "UTMALDG", "UBLKCP")
    ],
)
def test_a_kernel_that_does_not_is_caught(line: str, instead: str, faults: list[str]) -> None:
    code = sass.kernels(DISASSEMBLY)["embed"]
    assert line in code
    assert sass.order_faults(code.replace(line, instead)) == faults


def test_constant_and_shared_memory_may_come_first() -> None:
    code = sass.kernels(DISASSEMBLY)["embed"].replace("S2R R2, SR_TID.X", "LDS R2, [R3]")
    assert sass.order_faults(code) == []
