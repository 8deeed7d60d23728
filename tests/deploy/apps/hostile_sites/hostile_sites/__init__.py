"""An app with a site that can misbehave in several ways."""
