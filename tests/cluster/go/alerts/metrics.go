package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// The labels of each metric, by the names of its series.
type metrics map[string][]string

// What Prometheus puts to the metrics of a target that Kubernetes has.
var ofTarget = []string{"job", "namespace", "pod"}

// readMetrics reads the rows of the page's table: a name, a type, labels.
func readMetrics(path string) (metrics, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*) \\|")
	found := metrics{}
	for _, cells := range row.FindAllStringSubmatch(string(content), -1) {
		name, kind := cells[1], cells[2]
		var own []string
		for _, label := range strings.Split(cells[3], ",") {
			if label := strings.Trim(label, " `"); label != "" {
				own = append(own, label)
			}
		}
		if kind == "histogram" {
			found[name+"_bucket"] = append(slices.Clone(own), "le")
			found[name+"_sum"], found[name+"_count"] = own, own
		} else {
			found[name] = own
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: no metric is in it", path)
	}
	return found, nil
}

// lacking says which metrics and labels of an expression there are not.
func (all metrics) lacking(expression string) (wrong []string) {
	expr, err := promql.ParseExpr(expression)
	if err != nil {
		return []string{err.Error()}
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			for _, matcher := range node.LabelMatchers {
				if matcher.Name != labels.MetricName {
					wrong = append(wrong, all.lackingLabel(node.Name, matcher.Name)...)
				}
			}
		case *parser.AggregateExpr:
			for _, selectors := range parser.ExtractSelectors(node.Expr) {
				for _, label := range node.Grouping {
					wrong = append(wrong, all.lackingLabel(nameOf(selectors), label)...)
				}
			}
		}
		return nil
	})
	return wrong
}

// lackingSeries says the same of the series of a case.
func (all metrics) lackingSeries(series map[string]string) (wrong []string) {
	for described := range series {
		own, _, err := promql.ParseSeriesDesc(described)
		if err != nil {
			return []string{err.Error()}
		}
		own.Range(func(label labels.Label) {
			if label.Name != labels.MetricName {
				wrong = append(wrong, all.lackingLabel(own.Get(labels.MetricName), label.Name)...)
			}
		})
	}
	return wrong
}

func (all metrics) lackingLabel(metric, label string) []string {
	own, known := all[metric]
	if !known {
		return []string{"there is no metric " + metric}
	}
	if !slices.Contains(own, label) && !slices.Contains(ofTarget, label) {
		return []string{"the metric " + metric + " has no label " + label}
	}
	return nil
}

func nameOf(matchers []*labels.Matcher) string {
	for _, matcher := range matchers {
		if matcher.Name == labels.MetricName {
			return matcher.Value
		}
	}
	return ""
}
