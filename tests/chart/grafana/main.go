// Reads a dashboard as strictly as Grafana's own published schema allows, and says what it finds wrong.
package main

import (
	"fmt"
	"os"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

func main() {
	plugins.RegisterDefaultPlugins()
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var board dashboard.Dashboard
	for _, err := range []error{board.UnmarshalJSONStrict(text), board.Validate()} {
		// A list of no errors is an error too, without a word.
		if err != nil && err.Error() != "" {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
