"""This package's decoder behind the models of other packages, one module for each."""
