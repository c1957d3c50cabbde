"""Meters on Modbus: a meter type is a data file, a unit on a line is a source of register readings."""
