v5
