package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	prom "github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"
)

var engine = prom.NewEngine(prom.EngineOpts{
	Logger: slog.Default(), MaxSamples: 10_000_000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: promql,
	NoStepSubqueryIntervalFn: func(int64) int64 { return interval.Milliseconds() },
})

// An alert that is pending, or fires.
type alert struct {
	active time.Time
	fired  *firing
	// While it fires without a reason any more: since when.
	kept *time.Time
}

// fires gives everything that a rule tells people of, as Prometheus' rules.AlertingRule.Eval does at each interval: an alert is pending
// until it was active at every look for as long as `for` says; from then on it fires until it was active at none for as long as
// `keep_firing_for` says.
func fires(rule rulefmt.Rule, scraped memory) (all []firing, err error) {
	alerts := map[string]*alert{}
	began := time.UnixMilli(0)
	for at := began; at.Sub(began) <= length; at = at.Add(interval) {
		found, err := query(rule.Expr, scraped, at)
		if err != nil {
			return nil, err
		}
		for of, what := range found {
			known, ok := alerts[of]
			if !ok {
				known = &alert{active: at}
				alerts[of] = known
			}
			known.kept = nil
			if known.fired == nil && at.Sub(known.active) >= time.Duration(rule.For) {
				known.fired = &firing{Alert: rule.Alert, Of: what.Metric.Map(), From: model.Duration(at.Sub(began))}
				if known.fired.Summary, err = expand(rule, what, at); err != nil {
					return nil, err
				}
			}
		}
		for _, of := range slices.Sorted(maps.Keys(alerts)) {
			known := alerts[of]
			if _, ok := found[of]; ok {
				continue
			}
			if known.kept == nil {
				known.kept = &at
			}
			if known.fired != nil && at.Sub(*known.kept) < time.Duration(rule.KeepFiringFor) {
				continue
			}
			if known.fired != nil {
				known.fired.Until = model.Duration(at.Sub(began))
				all = append(all, *known.fired)
			}
			delete(alerts, of)
		}
	}
	for _, of := range slices.Sorted(maps.Keys(alerts)) {
		if alerts[of].fired != nil {
			all = append(all, *alerts[of].fired)
		}
	}
	return all, nil
}

// query gives what an expression finds, by its labels.
func query(expression string, scraped memory, at time.Time) (map[string]prom.Sample, error) {
	asked, err := engine.NewInstantQuery(context.Background(), scraped, nil, expression, at)
	if err != nil {
		return nil, err
	}
	defer asked.Close()
	vector, err := asked.Exec(context.Background()).Vector()
	if err != nil {
		return nil, err
	}
	found := map[string]prom.Sample{}
	for _, sample := range vector {
		sample.Metric = labels.NewBuilder(sample.Metric).Del(labels.MetricName).Labels()
		found[sample.Metric.String()] = sample
	}
	return found, nil
}

// expand gives the summary; all other texts must expand, too.
func expand(rule rulefmt.Rule, what prom.Sample, at time.Time) (summary string, err error) {
	data := template.AlertTemplateData(what.Metric.Map(), nil, "", what)
	for name, text := range rule.Annotations {
		text = "{{$labels := .Labels}}{{$value := .Value}}" + text
		expander := template.NewTemplateExpander(context.Background(), text, name, data, model.TimeFromUnixNano(at.UnixNano()), nil, nil,
			[]string{"missingkey=error"})
		expanded, err := expander.Expand()
		if err != nil {
			return "", fmt.Errorf("the annotation %s: %w", name, err)
		}
		if name == "summary" {
			summary = expanded
		}
	}
	return summary, nil
}
