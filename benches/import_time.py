"""Milliseconds that `import tdtdecode` takes on top of `import numpy`: the median of fresh interpreters.

    python -m benches.import_time
"""

from __future__ import annotations

import statistics
import subprocess
import sys

PROBE = "import time, numpy; t = time.perf_counter(); import tdtdecode; print((time.perf_counter() - t) * 1e3)"


def main() -> None:
    runs = [float(subprocess.check_output([sys.executable, "-c", PROBE])) for _ in range(11)]
    print(f"import tdtdecode: {statistics.median(runs[1:]):.1f} ms on top of import numpy")


if __name__ == "__main__":
    main()
