"""The quickstart with one client of ten that attacks."""
