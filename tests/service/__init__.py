"""The modules at the top of gpudev_service: Hub client, events, background work, clock."""
