"""Operators that do nothing but watch and write: what Lifeboat is held against."""
