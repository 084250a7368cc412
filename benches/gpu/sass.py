"""What the machine code of a kernel consists of, as NVIDIA's disassembler shows it.

Needs the wheels nvidia-cuda-nvrtc and nvidia-cuda-nvdisasm, but no card.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import struct
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

KINDS = {
    "products": ("HMMA",),
    "global loads": ("LDG", "LD"),
    "global stores": ("STG", "ST"),
    "shared loads": ("LDS", "LDSM"),
    "shared stores": ("STS",),
    "atomics": ("ATOMG", "ATOM", "RED", "REDG"),
    "block barriers": ("BAR",),
    "fences": ("MEMBAR",),
    "cache invalidations": ("CCTL",),
    "shuffles": ("SHFL",),
    "conversions": ("F2F", "F2FP"),
    "special functions": ("MUFU",),
    "branches": ("BRA", "BSSY", "BSYNC", "BREAK", "BRX", "CALL", "RET"),
}
"""Kind of instruction -> the operations that belong to it, without their suffixes."""


def code_bytes(cubin: bytes) -> dict[str, int]:
    """Bytes of machine code of each kernel, with the functions that it calls. Read from the file, which is ELF."""
    (sections_at,) = struct.unpack_from("<Q", cubin, 0x28)
    entry, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, sections_at + i * entry) for i in range(count)]
    strings = headers[names][4]
    sizes = {}
    for name_at, _, _, _, _, size in headers:
        name = cubin[strings + name_at : cubin.index(b"\0", strings + name_at)].decode()
        if name.startswith(".text."):
            sizes[name.removeprefix(".text.")] = size
    return sizes


def disassembled(cubin: bytes) -> dict[str, list[str]]:
    """The lines of each kernel's code: instructions and labels."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([_disassembler(), "-c", file.name], capture_output=True, text=True, check=True)
    kernels: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in done.stdout.splitlines():
        if match := re.match(r"\s*\.section\s+\.text\.(\w+)", line):
            lines = kernels.setdefault(match[1], [])
        elif re.match(r"\s*\.section", line):
            lines = []
        elif match := re.match(r"(\.L_x_\d+):", line.strip()):
            lines.append(match[1])
        elif match := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            lines.append(match[1].strip())
    return kernels


def counted(lines: list[str]) -> dict[str, int]:
    """How many instructions of each kind, and how many divisions of integers, which take about twenty each."""
    operations = Counter(operation(line) for line in lines if not line.startswith(".L"))
    counts = {"instructions": operations.total()}
    for kind, members in KINDS.items():
        counts[kind] = sum(count for name, count in operations.items() if name.split(".")[0] in members)
    # To divide integers, the compiler begins with the reciprocal of a number that was converted with rounding upwards.
    counts["integer divisions"] = sum(count for name, count in operations.items() if re.match(r"I2F.*\.RP", name))
    return counts


def loops(lines: list[str], innermost: bool = True) -> list[list[str]]:
    """The lines of each loop, or of each innermost loop: from the target of a jump backwards up to that jump."""
    places = {line: i for i, line in enumerate(lines) if line.startswith(".L")}
    spans = []
    for i, line in enumerate(lines):
        target = re.search(r"BRA.*?(\.L_x_\d+)", line)
        if target and places.get(target[1], i) < i:
            spans.append((places[target[1]], i))
    if innermost:
        spans = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    return [lines[first : last + 1] for first, last in spans]


def without_calls(lines: list[str]) -> list[str]:
    """The instructions that run where no function is called: without the blocks that end in a call or follow one."""
    kept: list[str] = []
    block: list[str] = []
    after_call = False
    for line in lines:
        if line.startswith(".L"):
            kept, block, after_call = kept if after_call else kept + block, [], False
            continue
        block.append(line)
        if operation(line).startswith("CALL"):
            block, after_call = [], True
        elif operation(line).startswith("BRA"):
            kept, block, after_call = kept if after_call else kept + block, [], False
    return kept + block


def operation(line: str) -> str:
    """An instruction's operation with its suffixes, without its predicate."""
    return re.sub(r"^@!?U?P\w+\s+", "", line).split()[0]


def _disassembler() -> str:
    spec = importlib.util.find_spec("nvidia")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in Path(folder).glob("**/bin/nvdisasm"):
            return str(path)
    found: Any = shutil.which("nvdisasm")
    if found is None:
        raise ImportError("nvdisasm is missing: pip install nvidia-cuda-nvdisasm")
    return str(found)
