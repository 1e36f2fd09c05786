"""Type hints: what annotations stand for, and converters of JSON values to them. Loaded when a hint asks for more than JSON has."""
