#!/usr/bin/env python3
"""Asks Patroni's own functions what they make of many values, one JSON object per line, for TestPatroniVectors.

PYTHONPATH=DIRECTORY_WITH_PATRONI python3 vectors.py > vectors.jsonl
"""
import copy
import json
import sys
import types

# What Patroni imports on the way, and none of these functions calls.
for module, names in {'psutil': 'TimeoutExpired Process Popen Error NoSuchProcess',
                      'patroni.psycopg': 'connect quote_ident quote_literal parse_conninfo DatabaseError Error OperationalError ProgrammingError'}.items():
    sys.modules[module] = types.ModuleType(module)
    for name in names.split():
        setattr(sys.modules[module], name, type(name, (Exception,), {}))

from patroni import global_config
from patroni.config import Config
from patroni.dcs import (Cluster, ClusterConfig, Failover, Member, Status, SyncState, TimelineHistory,
                         slot_name_from_member_name)
from patroni.tags import Tags
from patroni.utils import deep_compare, parse_bool, parse_int, patch_config


def out(what, given, want):
    print(json.dumps({'what': what, 'in': given, 'out': want}, separators=(',', ':')))


NUMBERS = [0, 1, -1, 9, 10.5, 11.5, 1.0, 1e3, 1e20, -0.5, 2.5, True, False, None, '', ' ', '0', '1', '-1', '+7', ' 12 ',
           '0x10', '-0x1f', '0X10', '0x', '010', '-017', '08', '0b1', '0o7', '1_000', '1MB', '1 MB', '1.5', '.5', '5.',
           '1.e5', '1e3', '1E3', '1e', '1e+2', '1.5e1', '1 e5', 'nonsense', 'on', '--1', '+-1', '1d', '30min', '30 min',
           '2h', '1.5h', '90s', '1500ms', '1499ms', '0.4s', '1.4996min', '5us', '1000000us', '1m', '1 D', '1.2.3', '٣',
           '9223372036854775807', '0.0000001d', '-5min', [], {}, [1], {'a': 1}]
for v in NUMBERS:
    out('int', v, parse_int(v))
    out('seconds', v, parse_int(v, 's'))
for v in NUMBERS + ['ON', 'Off', 'TRUE', 'tRue', 'yes', 'No', 'y', 't', ' on', 'on ', 'enabled']:
    out('bool', v, parse_bool(v))

for name in ['node-1', 'Node.A', 'pg 0', 'x/y', '', 'a' * 70, 'ü' * 20, 'Ä', 'İstanbul', 'ΟΔΟΣ', 'ΣΟΣ', 'Σ', 'aΣ.b', 'aΣ.', 'ΑΣ-1',
             'ẞ', '漢字', '😀', 'a_b', 'ǅ', 'K', 'a\tb', '\x7f', 'É.é', 'ß', 'ﬁ', 'Ω', 'ΑΣ\u0301', 'a:Σ', "ΑΣ'Α", 'ΑΣ1', '1Σ', 'ªΣ', 'Ⅷ']:
    out('slot', name, slot_name_from_member_name(name))


class T(Tags):
    def __init__(self, tags):
        self._tags = self._filter_tags(tags)
        self.given = tags

    @property
    def tags(self):
        return self._tags


FLAGS = ['absent', None, True, False, 'true', 'false', '', 0, 1, '0', [], {}]
PRIORITIES = ['absent', None, 0, 1, -1, 5, '0', '3', '0x0', 'many', 0.4, 0.5, 1.5, True, '']
for flag, priority in (('nofailover', 'failover_priority'), ('nosync', 'sync_priority')):
    for f in FLAGS:
        for p in PRIORITIES:
            tags = {k: v for k, v in ((flag, f), (priority, p)) if v != 'absent'}
            t = T(tags)
            out('tags', tags, {'published': t.tags, 'nofailover': t.nofailover, 'failover_priority': t.failover_priority,
                               'nosync': t.nosync, 'sync_priority': t.sync_priority})
for name in ('noloadbalance', 'clonefrom', 'nostream', 'custom'):
    for f in FLAGS:
        t = T({name: f})
        out('flags', {name: f}, {'published': t.tags, 'noloadbalance': t.noloadbalance, 'clonefrom': bool(t.clonefrom),
                                 'nostream': t.nostream})

LEAVES = [None, 0, 1, 1.0, 1.5, 1e16, 1e-05, True, False, '', '0', '1', '1.0', '1e+16', '1e-05', 'True', 'None', 'x', [1], ['1'], [1.0],
          [True], [None], [[1]], [{'a': 1}], [{'a': '1'}], [], {}, {'a': 1}, {'a': '1'}, {'a': {'b': None}}, {'b': 1}]
for a in LEAVES:
    for b in LEAVES:
        out('same', [{'k': a}, {'k': b}], deep_compare({'k': a}, {'k': b}))
        config = {'k': copy.deepcopy(a)}
        changed = patch_config(config, {'k': copy.deepcopy(b)})
        out('patch', [{'k': a}, {'k': b}], {'changed': changed, 'config': config})
for base, patch in [({}, {'slots': {'x': None}}), ({'slots': {}}, {'slots': {'x': None}}), ({'slots': {'x': 1}}, {'slots': {'x': None}}),
                    ({'a': {'b': {'c': 1, 'd': 2}}}, {'a': {'b': {'c': None, 'd': '2', 'e': [1]}}}), ({'a': 1}, {}),
                    ({'a': 1}, {'a': {'b': None}}), ({'a': {'b': 1}}, {'a': 2})]:
    config = copy.deepcopy(base)
    changed = patch_config(config, copy.deepcopy(patch))
    out('patch', [base, patch], {'changed': changed, 'config': config})

for ttl in [None, 20, 21, 25, 30, 60, '30', 'x']:
    for loop in [None, 0, 1, 5, 10, 29, '7']:
        for retry in [None, 0, 3, 9, 10, 12, 15, '4']:
            given = {k: v for k, v in (('ttl', ttl), ('loop_wait', loop), ('retry_timeout', retry)) if v is not None}
            config = dict({'ttl': 30, 'loop_wait': 10, 'retry_timeout': 10}, **given)
            try:
                object.__new__(Config)._validate_and_adjust_timeouts(config)
            except ValueError:  # a text that is no number
                continue
            out('timing', given, [int(config[k]) for k in ('ttl', 'loop_wait', 'retry_timeout')])

for config in [{}, {'synchronous_mode': 'QUORUM'}, {'synchronous_mode': 'Quorum ', 'synchronous_mode_strict': 'on'}, {'synchronous_mode': 'on'},
               {'synchronous_mode': 1}, {'synchronous_mode': True, 'synchronous_node_count': 0, 'synchronous_mode_strict': True},
               {'synchronous_mode': 'strict'}, {'synchronous_mode': True, 'standby_cluster': {'host': 'a'}},
               {'standby_cluster': {'host': '', 'port': 0, 'restore_command': None}}, {'standby_cluster': {'restore_command': 'x'}},
               {'standby_cluster': {}}, {'standby_cluster': 'x'}, {'standby_cluster': {'port': 5432}}, {'standby_cluster': {'primary_slot_name': 'x'}},
               {'maximum_lag_on_failover': '1MB'}, {'maximum_lag_on_failover': '0x100'}, {'maximum_lag_on_failover': -1},
               {'primary_start_timeout': 0, 'master_start_timeout': 5}, {'master_start_timeout': 5}, {'primary_start_timeout': None, 'master_start_timeout': 5},
               {'master_stop_timeout': '7'}, {'primary_stop_timeout': '0x10'}, {'member_slots_ttl': 0}, {'member_slots_ttl': '1h'},
               {'member_slots_ttl': '90'}, {'member_slots_ttl': '1 week'}, {'pause': 'on'}, {'pause': 'paused'}, {'failsafe_mode': 'YES'},
               {'check_timeline': 'true'}, {'max_timelines_history': '5'}, {'synchronous_node_count': 3}]:
    g = global_config.from_cluster(Cluster(None, ClusterConfig(1, config, 1), None, Status.empty(), [], None, SyncState.empty(), None, None, {}))
    out('dynamic', config, {
        'synchronous_mode': '' if not g.is_synchronous_mode else 'quorum' if g.is_quorum_commit_mode else 'on',
        'strict': g.is_synchronous_mode_strict, 'node_count': g.synchronous_node_count, 'standby_cluster': g.is_standby_cluster,
        'maximum_lag': g.maximum_lag_on_failover, 'primary_start': g.primary_start_timeout, 'primary_stop': g.primary_stop_timeout,
        'member_slots_ttl': g.member_slots_ttl, 'pause': g.is_paused, 'failsafe': g.check_mode('failsafe_mode'),
        'check_timeline': g.check_mode('check_timeline'), 'max_timelines': g.max_timelines_history})

for v in ['', 'null', '{}', '[]', '17', '"x"', 'a:b', ' a : b ', 'a:b:c', ':b', '{"leader":"a"}', '{"member":"b"}', '{"leader":null,"member":""}',
          '{"scheduled_at":"2036-01-01T00:00:00+00:00"}', '{"leader":"a","scheduled_at":"2036-01-01 00:00:00.25+02"}',
          '{"leader":"a","scheduled_at":"2036-01-01T00:00Z"}', '{"leader":"a","scheduled_at":"2036-01-01T00:00:00 +0130"}', '{"leader":"a","scheduled_at":null}']:
    f = Failover.from_node(1, v)
    out('failover', v, [f.leader or '', f.candidate or '', f.scheduled_at.timestamp() if f.scheduled_at else 0])
for v in ['null', '{}', '{"leader":null,"quorum":1,"sync_standby":"a"}', '{"leader":"a"}', '{"leader":"a","sync_standby":"c, b,,"}',
          '{"leader":"a","quorum":"2","sync_standby":"b,c"}', '{"leader":"a","quorum":null,"sync_standby":null}', '{"leader":"","quorum":1,"sync_standby":"b"}']:
    s = SyncState.from_node(1, v)
    out('sync', v, [s.leader or '', s.quorum, sorted(s.voters)])
for v in ['4711', '"x"', '[]', '{}', '{"optime":"5"}', '{"optime":5,"slots":{"a":1},"retain_slots":["x"]}', '{"optime":null}', '{"optime":"x"}',
          '{"optime":5,"slots":"{\\"a\\":7}","retain_slots":"[\\"b\\"]"}', '{"optime":5,"slots":"x","retain_slots":{}}', '{"slots":[]}']:
    s = Status.from_node(v)
    out('status', v, [s.last_lsn, s.slots or {}, s.retain_slots])
for v in ['{}', '{"conn_url":"x","tags":{"a":1}}', 'postgres://u@h:5432/postgres?application_name=http://h:8008/patroni',
          'postgresql://h/db?x=1&application_name=http%3A%2F%2Fh%2F&y=2', 'postgres://h/db', '{', '[]', 'null', '']:
    m = Member.from_node(1, 'm', None, v)
    out('member', v, [m.data.get('conn_url') or '', m.data.get('api_url') or ''])
for v in ['[]', '[[1,5,"x"]]', '[[1,5,"x"],[2,"6","y","t"]]', '[[1,5,"x","t","n"]]', 'null', '{}', '3', '']:
    h = TimelineHistory.from_node(1, v)
    tl = (h.lines[-1][0] + 1 if h.lines else 1 if h.value == '[]' else 0)
    out('history', v, [len(h.lines), tl])
for v in ['ascii', '"\\/\b\f\n\r\t', '\x00\x1f\x7f\x80', 'é€😀\u2028<>&\ufffd', "'"]:
    out('json', v, json.dumps(v, separators=(',', ':')))
for v in [0.0, -0.0, 1.0, 0.1, 1e15, 1e16, 1.5e300, 1e-4, 1e-5, 123456789.125, 5e-324, 1 / 3]:
    out('json', v, json.dumps(v))
