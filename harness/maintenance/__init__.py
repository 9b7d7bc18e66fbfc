"""What keeps record and cache in order: `doctor`, `snapshot`, `restore`, `data verify`."""
