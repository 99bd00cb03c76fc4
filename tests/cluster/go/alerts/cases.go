package main

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"go.yaml.in/yaml/v3"
)

const (
	// How often metrics are scraped and rules looked at.
	interval = 30 * time.Second
	// How long a case is looked at.
	length = 2 * time.Hour
	// The series that says who leads; a case that does not speak of it has an operator that leads all the time.
	leads = "mcpfleet_leader"
)

// A case: series, each with its values as Prometheus' own tests write them, a value a scrape, and everything that fires.
type testCase struct {
	Case   string
	Series map[string]string
	Fires  []firing
}

// A firing is what a person is told: an alert, of whom, and from when until when since the case began.
type firing struct {
	Alert   string
	Of      map[string]string
	From    model.Duration
	Until   model.Duration
	Summary string
}

func (f firing) String() string {
	var of []string
	for _, label := range slices.Sorted(maps.Keys(f.Of)) {
		of = append(of, label+"="+f.Of[label])
	}
	return fmt.Sprintf("%s {%s} from %s until %s: %s", f.Alert, strings.Join(of, ", "), f.From, f.Until, f.Summary)
}

func readCases(path string) ([]testCase, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	var cases []testCase
	if err := decoder.Decode(&cases); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cases, nil
}

// neverExpected: an alert that fires in no case is not tested.
func neverExpected(alert string, cases []testCase) []string {
	for _, one := range cases {
		for _, expected := range one.Fires {
			if expected.Alert == alert {
				return nil
			}
		}
	}
	return []string{"no case expects it"}
}

// differences says what fires and should not, and the other way round.
func (c testCase) differences(rules []rulefmt.Rule) (wrong []string) {
	scraped, err := c.scraped()
	if err != nil {
		return []string{err.Error()}
	}
	var met, expected []string
	for _, rule := range rules {
		fired, err := fires(rule, scraped)
		if err != nil {
			return []string{rule.Alert + ": " + err.Error()}
		}
		for _, firing := range fired {
			met = append(met, firing.String())
		}
	}
	for _, firing := range c.Fires {
		expected = append(expected, firing.String())
	}
	for _, line := range met {
		if !slices.Contains(expected, line) {
			wrong = append(wrong, "fires, unexpected: "+line)
		}
	}
	for _, line := range expected {
		if !slices.Contains(met, line) {
			wrong = append(wrong, "does not fire:     "+line)
		}
	}
	return wrong
}

// scraped gives the series as Prometheus has them: with the labels of the target, where the metric says nothing itself (honorLabels),
// and at an end at once where a scrape finds them no more.
func (c testCase) scraped() (all memory, err error) {
	described := maps.Clone(c.Series)
	if described == nil {
		described = map[string]string{}
	}
	named := func(name string) bool { return strings.HasPrefix(name, leads) }
	if !slices.ContainsFunc(slices.Collect(maps.Keys(described)), named) {
		described[leads+`{pod="a"}`] = fmt.Sprintf("1x%d", int(length/interval))
	}
	for name, values := range described {
		own, sequence, err := promql.ParseSeriesDesc(name + " " + values)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		builder := labels.NewBuilder(own).Set("job", "mcpfleet")
		if !own.Has("namespace") {
			builder.Set("namespace", "mcpfleet-system")
		}
		all = append(all, series{labels: builder.Labels(), samples: samples(sequence)})
	}
	return all, nil
}

func samples(sequence []parser.SequenceValue) (all []chunks.Sample) {
	there := false
	// One more than there are: after its last value a series is gone.
	for i := range len(sequence) + 1 {
		at := int64(i) * interval.Milliseconds()
		switch {
		case i < len(sequence) && !sequence[i].Omitted:
			all, there = append(all, sample{at, sequence[i].Value}), true
		case there:
			all, there = append(all, sample{at, math.Float64frombits(value.StaleNaN)}), false
		}
	}
	return all
}
