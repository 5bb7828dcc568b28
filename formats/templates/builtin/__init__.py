"""The templates that come with the package, one Jinja file each, assistants marked with `{% generation %}`."""
