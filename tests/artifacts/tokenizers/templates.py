"""Chat templates that would take time or memory without end."""

HOSTILE = {
    "nested "
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "much of one": "{{ 'A' * 10**10 }}",
    "wide": "{{ 'a'.center(10**9) }}",
    "far range": "{% for a in range(10**9) %}{% endfor %}",
    "macro": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "long": "{% for a in range(99999) %}{{ 'A' * 1000 }}{% endfor %}",
    "doubling": "{% set n = namespace(x='a') %}{% for i in range(99999) %}{% set n.x = n.x ~ n.x "
    "%}{% endfor %}",
    "format": "{{ '%0999999999d' % 1 }}",
    "sorting": "{{ range(100000)|list * 99999 }}",
}
