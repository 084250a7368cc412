"""Our decoder behind other people's models; one module per package."""
