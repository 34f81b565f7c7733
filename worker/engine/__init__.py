"""The engine process: control commands, the sweeper and the renewal of leases."""
