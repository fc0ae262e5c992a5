"""Where the project, its docs and the real photographs lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REAL = ROOT.parent / "shared" / "data" / "real"  # absent on most machines; its tests are skipped there
