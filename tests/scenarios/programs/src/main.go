// SPDX-License-Identifier: GPL-3.0-or-later
package main

import (
	"fmt"
	"os"
	"sync"
)

func main() {
	var all sync.WaitGroup
	for i := 0; i < 20; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			name := fmt.Sprintf("/srv/w/go/out-%d", i)
			if err := os.WriteFile(name+".new", []byte("go\n"), 0o600); err != nil {
				panic(err)
			}
			if err := os.Rename(name+".new", name); err != nil {
				panic(err)
			}
			if i < 10 {
				os.Remove(fmt.Sprintf("/srv/w/data/%d.txt", i+1))
			}
		}(i)
	}
	all.Wait()
}
