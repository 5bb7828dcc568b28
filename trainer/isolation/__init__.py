"""Keep conversations that are packed together from seeing each other."""
