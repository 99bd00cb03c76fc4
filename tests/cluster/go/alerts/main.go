// Command alerts puts alerting rules over made-up series, as Prometheus would, and says of each case whether exactly the alerts that it
// expects fire, of whom, and when they begin and end. What Prometheus does with an expression is its own engine's; what it does with
// `for` and `keep_firing_for` is told again in alert.go, because its package of rules brings the clients of three clouds along.
//
// Usage: alerts RULES PAGE CASES    RULES: a PrometheusRule; PAGE: the list of metrics, in Markdown; CASES: see cases.go
// Each line of its output is `ok` or `FAILED`, a tab, and a sentence; what is wrong follows on lines that begin with a tab.
package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"go.yaml.in/yaml/v3"
)

var promql = parser.NewParser(parser.Options{})

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: alerts RULES PAGE CASES"))
	}
	rules, err := readRules(os.Args[1])
	if err != nil {
		fail(err)
	}
	metrics, err := readMetrics(os.Args[2])
	if err != nil {
		fail(err)
	}
	cases, err := readCases(os.Args[3])
	if err != nil {
		fail(err)
	}
	failed := false
	say := func(sentence string, wrong []string) {
		if len(wrong) == 0 {
			fmt.Printf("ok\t%s\n", sentence)
			return
		}
		failed = true
		fmt.Printf("FAILED\t%s\n\t%s\n", sentence, strings.Join(wrong, "\n\t"))
	}
	for _, rule := range rules {
		say("what the alert "+rule.Alert+" asks for is there", metrics.lacking(rule.Expr))
		say("a case shows the alert "+rule.Alert, neverExpected(rule.Alert, cases))
	}
	for _, one := range cases {
		say("alerts: "+one.Case, append(metrics.lackingSeries(one.Series), one.differences(rules)...))
	}
	if failed {
		os.Exit(1)
	}
}

// readRules reads the alerts of a PrometheusRule: what is below `spec` is a file of rules.
func readRules(path string) ([]rulefmt.Rule, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var object struct{ Spec yaml.Node }
	if err := yaml.Unmarshal(content, &object); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	spec, err := yaml.Marshal(&object.Spec)
	if err != nil {
		return nil, err
	}
	groups, wrong := rulefmt.Parse(spec, false, model.UTF8Validation, promql, slog.Default())
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%s: %w", path, wrong[0])
	}
	var rules []rulefmt.Rule
	for _, group := range groups.Groups {
		rules = append(rules, group.Rules...)
	}
	if len(rules) == 0 {
		return nil, fmt.Errorf("%s: no rule is in it", path)
	}
	return rules, nil
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "alerts:", err)
	os.Exit(1)
}
