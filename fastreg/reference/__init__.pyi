# The same names as in fastreg, with the same signatures (tests/test_house.py compares them) and so the same types.
from fastreg import *
