"""The core of every connection: nurseries, supervision, message channels, and the tools that its parts share."""
