"""`gpudev simulate`: its reader by property, its rules by examples worked by hand, the command."""
