"""Tests of Interlock: real servers, real workers, no service needed beforehand."""
