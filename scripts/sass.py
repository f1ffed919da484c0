"""What nvdisasm says of a cubin: the code of each kernel, and whether it waits for earlier kernels before all else."""

import re
from collections import Counter

# An instruction: its predicate, if any, and its name without what qualifies it.
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?([A-Z]\w*)", flags=re.MULTILINE)
# What reaches device memory, generic addresses included; shared and constant memory have names of their own.
DEVICE_MEMORY = {"LDG", "STG", "LD", "ST", "LDGSTS", "ATOM", "ATOMG", "RED", "REDG"} | {
    "UBLKCP",
    "UBLKPF",
    "UBLKRED",
    "UTMALDG",
    "UTMASTG",
    "UTMAREDG",
}
# Sums, products and what fuses the two, in f32 and f64.
ARITHMETIC = {"FADD", "FMUL", "FFMA", "DADD", "DMUL", "DFMA"}
# What leaves the straight line from a kernel's entry.
TURNS = {"EXIT", "BRA", "BRX", "BRXU", "JMP", "JMX", "JMXU", "CALL", "RET", "BREAK", "BSYNC"}


def kernels(disassembly: str) -> dict[str, str]:
    """The code of each kernel, by name."""
    sections = re.split(r"^\s*\.section\s+\.text\.(\w+)", disassembly, flags=re.MULTILINE)
    return dict(zip(sections[1::2], sections[2::2], strict=True))


def count(code: str, instruction: str) -> int:
    """How often an instruction stands in some code."""
    return len(re.findall(rf"\b{instruction}\b", code))


def arithmetic(code: str) -> Counter[str]:
    """How often each instruction of ARITHMETIC stands in some code."""
    return Counter(name for _, name in INSTRUCTION.findall(code) if name in ARITHMETIC)


def order_faults(code: str) -> list[str]:
    """What keeps a stream from launching this kernel, or the one after it, early; see begin_kernel in ptx.cuh.

    Every thread must execute PREEXIT, which lets the next grid start, and ACQBULK, the wait for the grids before,
    on the straight line from the entry, and nothing on that line may reach device memory.
    """
    line = []
    for predicate, name in INSTRUCTION.findall(code):
        if name in TURNS:
            break
        line.append((name, bool(predicate)))
    faults = [f"begins without {name}" for name in ("PREEXIT", "ACQBULK") if (name, False) not in line]
    if not faults:
        before = (name for name, _ in line[: line.index(("ACQBULK", False))] if name in DEVICE_MEMORY)
        faults = [f"reaches device memory ({name}) before ACQBULK" for name in before]
    return faults
