# What a contributor runs. On Debian 12, as root or with sudo, nothing needs to be there but make:
#
#   make run      serve examples/hello on http://127.0.0.1:5000/ in the foreground
#   make test     everything the project checks: check, then all tests
#   make quick    format, lint, types and the tests that start no server: two minutes, no root, many times a day
#   make check    format, lint and types only
#   make live     only the tests that start real servers
#   make machine  only the tests on a real systemd: Debian 12 and 13, booted in containers; root only
#   make fuzz     made-up requests and applications, guided by coverage; docs/http.md says more
#   make bench    CPU time, throughput and waits beside other servers
#   make deb      the Debian package of what is committed, in dist/
#   make release  source distribution, wheel and Debian package, each built twice and compared, in dist/
#   make clean    back to a fresh clone
#
# The first run sets up .venv; later ones find its stamp. STARDUST_TEST_SLOW=5 stretches every time limit of
# the tests, PYTEST='-k reload -x' passes options on. FUZZ_RUNS=10000000 has make fuzz run each
# target so often, FUZZ='http1 --drawn' passes options on.

RUN_PACKAGES  = gcc libc6-dev libsystemd-dev pkg-config python3 python3-dev python3-venv
# PyPy is the second interpreter of the tests; systemd brings systemd-analyze and systemd-socket-activate;
# groff and man-db check the man pages.
QUICK_PACKAGES = groff-base man-db openssl pypy3 systemd
# nmap and sslscan attack real servers; with debootstrap and systemd-container machines are made and booted.
TEST_PACKAGES = debootstrap nmap sslscan systemd-container
# Proxies that the tests put before the server: unpacked, not installed.
TEST_PROXIES  = haproxy nginx libnginx-mod-stream
# libev-dev and libssl-dev are for bjoern and uWSGI, which come as source.
BENCH_PACKAGES = libev-dev libjson-xs-perl libssl-dev nghttp2-client openssl puma starlet starman systemd wrk
# Build-Depends of packaging/debian/control, and what Debian takes for granted there.
DEB_PACKAGES   = build-essential debhelper dh-python pybuild-plugin-pyproject python3-all python3-setuptools

# The system's own Python if it is new enough, else any that is. For the shell, not for make: which expands
# the whole recipe first, before apt-get has installed one.
find_python = for python in /usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done

# $(call install,PACKAGES): those that are missing, with one apt-get; nothing at all if none is.
define install
missing=$$(for name in $(1); do \
	dpkg-query --show --showformat '$${Status}' $$name 2>/dev/null | grep -q ' installed$$' || echo $$name; \
done); \
if [ -n "$$missing" ]; then \
	sudo=$$([ $$(id -u) = 0 ] || echo sudo); \
	$$sudo apt-get update -q && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends $$missing; \
fi
endef

FUZZ_RUNS = 100000

.PHONY: run test quick check machines machine live fuzz bench deb release clean

run: .venv/run.stamp
	@echo 'Serving examples/hello on http://127.0.0.1:5000/ (Ctrl-C stops it)'
	@exec .venv/bin/stardust --config examples/hello/stardust.toml

test: check machines .venv/applications.stamp
	.venv/bin/pytest --numprocesses=auto $(PYTEST)

quick: check
	.venv/bin/pytest --numprocesses=auto -m 'not live and not machine' $(PYTEST)

check: .venv/quick.stamp
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy

# Debian 12 and 13 with the package installed, to boot in containers: made once, in /var/cache. Root only.
machines: .venv/test.stamp
	@.venv/bin/python -m tests.machine.trees

machine: machines
	.venv/bin/pytest -m machine --numprocesses=auto $(PYTEST)

live: .venv/test.stamp .venv/applications.stamp
	.venv/bin/pytest -m live $(PYTEST)

fuzz: .venv/fuzz.stamp
	.venv/bin/python -m tests.fuzz --runs $(FUZZ_RUNS) $(FUZZ)

bench: .venv/bench.stamp
	.venv/bin/python bench/run.py --record

deb:
	@$(call install,$(DEB_PACKAGES))
	packaging/build-deb.sh

release: .venv/release.stamp
	@$(call install,$(DEB_PACKAGES))
	.venv/release/bin/python tools/release.py

.venv/run.stamp: pyproject.toml
	@$(call install,$(RUN_PACKAGES))
	@python=$$($(find_python)); \
	test -n "$$python" || { echo 'stardust needs Python 3.11 or newer' >&2; exit 1; }; \
	$$python -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check --use-pep517 --editable .
	@touch $@

# Root is asked for what is missing of Debian, and for nothing if nothing is.
.venv/quick.stamp: .venv/run.stamp
	@$(call install,$(QUICK_PACKAGES))
	.venv/bin/pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[test]'
	@touch $@

.venv/test.stamp: .venv/quick.stamp | .venv/proxies
	@$(call install,$(TEST_PACKAGES))
	@touch $@

# Only unpacked, with what they need and is not there: installed, they would start as services, and listen on
# port 80 of a machine that is somebody's. What is installed already is left out.
.venv/proxies: | .venv/run.stamp
	@mkdir -p $@.new/partial; \
	fetch="apt-get install -qq --download-only --no-install-recommends $(TEST_PROXIES) \
		-o Debug::NoLocking=1 -o Dir::Cache::archives=$(CURDIR)/$@.new"; \
	$$fetch || { $$([ $$(id -u) = 0 ] || echo sudo) apt-get update -q && $$fetch; } && \
	find $@.new -name '*.deb' -exec dpkg --extract {} $@.new \; -delete && rmdir $@.new/partial
	@mv $@.new $@

# Of its own, for an application sees nothing of the server's packages, nor of the tests'.
.venv/applications.stamp: .venv/test.stamp tests/applications/requirements.txt
	$(if $(wildcard .venv/applications/bin/python),,.venv/bin/python -m venv .venv/applications)
	.venv/applications/bin/pip install --quiet --disable-pip-version-check \
		--requirement tests/applications/requirements.txt
	@touch $@

# atheris comes as a wheel for some Pythons only. Without it the same targets run, unguided.
.venv/fuzz.stamp: .venv/test.stamp tests/fuzz/requirements.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --only-binary :all: \
		--requirement tests/fuzz/requirements.txt || echo 'no atheris here: fuzzing goes on without guidance'
	@touch $@

.venv/bench.stamp: .venv/run.stamp bench/requirements.txt
	@$(call install,$(BENCH_PACKAGES))
	.venv/bin/pip install --quiet --disable-pip-version-check --use-pep517 \
		--requirement bench/requirements.txt
	@touch $@

# Of its own, for what is built must not depend on what tests have brought.
.venv/release.stamp: .venv/run.stamp packaging/requirements.txt
	.venv/bin/python -m venv .venv/release
	.venv/release/bin/pip install --quiet --disable-pip-version-check --requirement packaging/requirements.txt
	@touch $@

clean:
	rm -rf .venv .fuzz build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
