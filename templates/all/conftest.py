"""Lets tests import the project without installing it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
