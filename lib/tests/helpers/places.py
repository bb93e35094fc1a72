"""Where tests find the project, its sample, its fixtures, and a folder of more that may lie beside it."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
LIB = PROJECT / "lib"
SAMPLE = PROJECT / "data" / "sample" / "conversations.json"
CARRIED = LIB / "tests" / "fixtures"
SHARED = PROJECT.parent / "shared"
