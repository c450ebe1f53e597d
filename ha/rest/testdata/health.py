"""Makes patroni-health.jsonl: the status codes of Patroni's own health check (patroni.api.RestApiHandler.do_GET) in random
states. Run it with Patroni 4.1 in PYTHONPATH: python3 health.py > patroni-health.jsonl"""
import json
import random
from unittest.mock import Mock, patch
from urllib.parse import parse_qs, urlparse

import patroni.api as api
from patroni.tags import Tags

random.seed(7)
PATHS = ('/ /primary /master /read-write /leader /standby-leader /standby_leader /replica /read-only /sync /synchronous /quorum /async /asynchronous'
         ' /read-only-sync /read-only-synchronous /read-only-quorum /health /foo /syncx /x/replica/y /healthy /notleader /replica-primary /sync/ /a/quorum'
         ' /read-only/sync /Primary').split()
QUERIES = ('- - - lag=100 lag=99 lag=101 lag=1kB lag=0 lag=-1 lag=x lag= lag=1.5kB lag=0x64 lag=99&lag=200 tag_zone=x tag_zone=y tag_n=3 tag_b=true tag_b=True'
           ' tag_off=false tag_f=1.5 tag_none=1 tag_zone= lag=100&tag_zone=x tag_zone=x&tag_n=4 tag_clonefrom=true').split()
TAGS = [{}, {}, {'zone': 'x', 'n': 3, 'b': True, 'off': False, 'f': 1.5, 'clonefrom': True}, {'zone': 'y', 'clonefrom': False}]


class ConfiguredTags(Tags):
    def __init__(self, d):
        self._tags = self._filter_tags(d)

    @property
    def tags(self):
        return self._tags


def state():
    c = {'path': random.choice(PATHS), 'query': random.choice(QUERIES).strip('-'), 'answered': random.random() < .9, 'state': 'running'}
    if random.random() < .15:
        c['state'] = random.choice(['starting', 'stopped', 'restarting'])
    c['answered'] = c['answered'] and c['state'] != 'stopped'
    for key, chance in {'recovery': .6, 'standby': .2, 'leader': .4, 'paused': .2, 'fresh': .8, 'voter': .5}.items():
        c[key] = random.random() < chance
    c['optime'], c['replayed'] = random.choice([0, 1000, 1100]), random.choice([900, 1000, 1001, 1200])
    c['latest'] = random.choice([0, 1000, 1100]) if c['recovery'] and c['answered'] else 0
    c['tags'] = dict(random.choice(TAGS), **({'noloadbalance': True} if random.random() < .15 else {}))
    c['mode'] = random.choice(['', '', 'on', 'quorum'])
    c['role'] = ('standby_leader' if c['standby'] and c['leader'] else 'replica') if c['recovery'] else 'primary'
    return c


def status(c):
    s = {'state': c['state'] if c['answered'] or c['state'] != 'running' else 'unknown', 'role': c['role']}
    if c['answered']:
        if not (c['standby'] and c['fresh']):
            s['role'] = 'replica' if c['recovery'] else 'primary'
        s['xlog'] = {'replayed_location': c['replayed']} if c['recovery'] else {'location': 1000}
        if c['latest']:
            s['latest_end_lsn'] = c['latest']
        if c['recovery'] and c['mode'] and c['fresh'] and c['voter'] and not c['standby']:
            s['quorum_standby' if c['mode'] == 'quorum' else 'sync_standby'] = True
    if c['paused']:
        s['pause'] = True
    return s


def code(c):
    h = object.__new__(api.RestApiHandler)
    url = urlparse(c['path'] + '?' + c['query'])
    h.path, h.path_query, h.server = url.path, parse_qs(url.query), Mock()
    h.get_postgresql_status = lambda *_: status(c)
    p, tags, got = h.server.patroni, ConfiguredTags(c['tags']), []
    p.dcs.cluster = Mock() if c['fresh'] else None
    if c['fresh']:
        p.dcs.cluster.status.last_lsn = c['optime']
    p.ha.is_leader = lambda: c['leader']
    p.noloadbalance, p.tags = tags.noloadbalance, tags.tags
    h._write_status_response = lambda code, _: got.append(code)
    with patch.object(api, 'global_config') as config:
        config.from_cluster.return_value = Mock(is_standby_cluster=c['standby'] and c['fresh'])
        h.do_GET()
    return got[0]


seen, n = set(), {200: 0, 503: 0}
while min(n.values()) < 250:
    c = state()
    c['code'] = code(c)
    key = tuple(c[k] for k in ('path', 'code', 'leader', 'recovery', 'answered'))
    if key in seen or n[c['code']] >= 250:
        continue
    if random.random() < .3:
        seen.add(key)
    n[c['code']] += 1
    print(json.dumps(c, sort_keys=True, separators=(',', ':')))
