package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// table is what is printed, in one of patronictl's formats.
type table struct {
	title   string // of the pretty form; with one the first column is the cluster's name, which that form leaves out
	columns []string
	rows    [][]any
	right   []string // columns that are aligned to the right
}

// formats are those that a table can be printed in.
const formats = "pretty, tsv, json, yaml"

func (t table) print(out io.Writer, format, delimiter string) error {
	switch format {
	case "pretty", "topology":
		t.pretty(out, format == "topology")
	case "tsv":
		if len(t.columns) > 0 {
			fmt.Fprintln(out, strings.Join(t.columns, delimiter))
		}
		for _, r := range t.rows {
			cells := make([]string, len(r))
			for i, c := range r {
				cells[i] = cellText(c, true)
			}
			fmt.Fprintln(out, strings.Join(cells, delimiter))
		}
	case "json":
		parts := make([]string, 0, len(t.rows))
		for _, r := range t.rows {
			parts = append(parts, t.object(r))
		}
		fmt.Fprintln(out, "["+strings.Join(parts, ", ")+"]")
	case "yaml", "yml":
		all := make([]any, 0, len(t.rows))
		for _, r := range t.rows {
			all = append(all, t.record(r))
		}
		fmt.Fprintln(out, yamlText(all))
	default:
		return fmt.Errorf("there is no format %q: %s", format, formats)
	}
	return nil
}

// record is a row by its columns; of a table with a title without the cells that are empty.
func (t table) record(row []any) map[string]any {
	m := map[string]any{}
	for i, c := range row {
		if t.title == "" || cellText(c, true) != "" {
			m[t.columns[i]] = c
		}
	}
	return m
}

// object is a row as JSON in the order of the columns, in the form that Python gives it.
func (t table) object(row []any) string {
	var parts []string
	for i, c := range row {
		if t.title == "" || cellText(c, true) != "" {
			parts = append(parts, pythonJSON(t.columns[i])+": "+pythonJSON(c))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// pythonJSON is a value with a space after each comma and colon.
func pythonJSON(v any) string {
	switch v := v.(type) {
	case map[string]any:
		var parts []string
		for _, k := range sortedKeys(v) {
			parts = append(parts, pythonJSON(k)+": "+pythonJSON(v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case []any:
		var parts []string
		for _, e := range v {
			parts = append(parts, pythonJSON(e))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%q", fmt.Sprint(v))
	}
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(b))
}

// cellText is a cell as people read it.
func cellText(c any, flow bool) string {
	switch v := c.(type) {
	case nil:
		return ""
	case string:
		return v
	case map[string]any:
		if len(v) == 0 {
			return ""
		}
		if flow {
			return yamlFlow(v)
		}
		return strings.TrimSpace(yamlText(v))
	}
	return fmt.Sprint(c)
}

// pretty draws the table, with its title in the upper border. A cell of several lines has all rows ruled. flow: mappings are
// written on one line.
func (t table) pretty(out io.Writer, flow bool) {
	columns, rows := t.columns, t.rows
	if t.title != "" && len(columns) > 0 && columns[0] == "Cluster" {
		columns = columns[1:]
	}
	cells := make([][][]string, len(rows))
	ruled := false
	width := make([]int, len(columns))
	for i, c := range columns {
		width[i] = utf8.RuneCountInString(c)
	}
	for i, r := range rows {
		r = r[len(r)-len(columns):]
		for j, c := range r {
			lines := strings.Split(cellText(c, flow), "\n")
			ruled = ruled || len(lines) > 1
			for _, l := range lines {
				width[j] = max(width[j], utf8.RuneCountInString(l))
			}
			cells[i] = append(cells[i], lines)
		}
	}
	rule := "+"
	for _, w := range width {
		rule += strings.Repeat("-", w+2) + "+"
	}
	top := rule
	if t.title != "" {
		title := t.title[:min(len(t.title), max(len(rule)-2, 0))]
		top = "+" + title + rule[1+len(title):]
	}
	fmt.Fprintln(out, top)
	header := make([][]string, len(columns))
	for i, c := range columns {
		header[i] = []string{c}
	}
	t.line(out, columns, header, width)
	fmt.Fprintln(out, rule)
	for _, r := range cells {
		t.line(out, columns, r, width)
		if ruled {
			fmt.Fprintln(out, rule)
		}
	}
	if !ruled || len(cells) == 0 {
		fmt.Fprintln(out, rule)
	}
}

func (t table) line(out io.Writer, columns []string, cells [][]string, width []int) {
	height := 0
	for _, c := range cells {
		height = max(height, len(c))
	}
	for l := range height {
		text := "|"
		for i, c := range cells {
			part := ""
			if l < len(c) {
				part = c[l]
			}
			space := strings.Repeat(" ", width[i]-utf8.RuneCountInString(part))
			if slices.Contains(t.right, columns[i]) {
				text += " " + space + part + " |"
			} else {
				text += " " + part + space + " |"
			}
		}
		fmt.Fprintln(out, text)
	}
}

// PrintTable draws a table of texts, with its title in the upper border.
func PrintTable(out io.Writer, title string, columns []string, rows [][]string) {
	t := table{title: title, columns: columns}
	for _, r := range rows {
		cells := make([]any, len(r))
		for i, c := range r {
			cells[i] = c
		}
		t.rows = append(t.rows, cells)
	}
	t.pretty(out, false)
}
