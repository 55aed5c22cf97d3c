// Cloudflare's documented verification for Go: tokens in on standard input, "accepted" or the error out.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	oidc "github.com/coreos/go-oidc"
)

func main() {
	var task struct {
		TeamDomain, Audience string
		Tokens               []string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&task); err != nil {
		log.Fatal(err)
	}
	keys := oidc.NewRemoteKeySet(context.Background(), task.TeamDomain+"/cdn-cgi/access/certs")
	verifier := oidc.NewVerifier(task.TeamDomain, keys, &oidc.Config{ClientID: task.Audience})
	verdicts := make([]string, len(task.Tokens))
	for at, token := range task.Tokens {
		verdicts[at] = "accepted"
		if _, err := verifier.Verify(context.Background(), token); err != nil {
			verdicts[at] = err.Error()
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(verdicts); err != nil {
		log.Fatal(err)
	}
}
