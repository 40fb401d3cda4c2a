v4
