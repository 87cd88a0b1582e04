"""Whether more than package.json, a lock and settings decide what a Node project has installed. Such a layer is its own
source's alone; every other one is whoever's has the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from vibed.classify.node_app import NodeApp
from vibed.classify.tree import strings, table
from vibed.classify.workspaces import Member

ELSEWHERE = re.compile(
    r"^(?:file:|link:|portal:|patch:|workspace:|\.{0,2}/|git[+:]|github:|gitlab:|bitbucket:|https?:|[\w-]+/[\w.-]+$)"
)
"""What is no range of a registry's versions."""
GIT_HOOKS = re.compile(
    r"\s*(?:(?:is-ci|is-git)\s*\|\|\s*)?(?:(?:npx|npm exec|yarn|pnpm(?: exec)?|bunx)\s+(?:--no(?:-install)?\s+)?)?"
    r"(?:husky(?:\s+(?:install\b.*|init))?|lefthook\s+install.*|simple-git-hooks|git config core\.hooksPath\s+\S+)"
    r"\s*(?:\|\|\s*(?:true|exit 0|:))?\s*"
)
"""A script that prepares whoever works on the project, and nothing that is installed."""
_OWN_SCRIPTS = ("preinstall", "install", "postinstall", "prepare", "prepublish")
_ELSEWHERE_IN = re.compile(r"\b(?:file|link|portal|patch|workspace|git\+\w+|https?):")
_SETTING = re.compile(r"^[ \t]*(?!#|;)([^\s=:]{1,100})(?:\[\])?[ \t]*[=: ]", re.MULTILINE)
_KEY = re.compile(r"^([A-Za-z]\w{0,60})[ \t]*:", re.MULTILINE)

_NPMRC = frozenset({
    "audit", "auto-install-peers", "color", "dedupe-peer-dependents", "engine-strict", "fetch-retries",
    "fetch-timeout", "force", "fund", "hoist", "hoist-pattern", "ignore-scripts", "include", "install-strategy",
    "legacy-peer-deps", "link-workspace-packages", "lockfile", "loglevel", "min-release-age", "minimum-release-age",
    "node-linker", "omit", "optional", "package-lock", "prefer-dedupe", "prefer-frozen-lockfile", "prefer-offline",
    "progress", "public-hoist-pattern", "registry", "resolution-mode", "resolve-peers-from-workspace-root", "save",
    "save-exact", "save-prefix", "shamefully-hoist", "side-effects-cache", "strict-peer-dependencies",
    "strict-peer-deps", "update-notifier", "verify-deps-before-run",
})  # fmt: skip
"""Settings that say nothing of other files, of other registries or of who asks."""
_YARN = frozenset({
    "cacheFolder", "checksumBehavior", "compressionLevel", "defaultSemverRangePrefix", "dependenciesMeta",
    "enableGlobalCache", "enableHardenedMode", "enableImmutableInstalls", "enableInlineHunks", "enableMirror",
    "enableProgressBars", "enableScripts", "enableTelemetry", "httpTimeout", "logFilters", "networkConcurrency",
    "nmHoistingLimits", "nmMode", "nodeLinker", "npmMinimalAgeGate", "npmRegistryServer", "packageExtensions",
    "pnpEnableEsmLoader", "pnpFallbackMode", "pnpMode", "preferReuse", "supportedArchitectures", "yarnPath",
})  # fmt: skip
_YARN_1 = frozenset({"yarn-path", "registry", "lastUpdateCheck"})
_PNPM = frozenset({
    "allowBuilds", "allowedDeprecatedVersions", "autoInstallPeers", "blockExoticSubdeps", "catalog", "catalogs",
    "dedupePeerDependents", "engineStrict", "hoist", "hoistPattern", "ignoredBuiltDependencies",
    "ignoredOptionalDependencies", "linkWorkspacePackages", "minimumReleaseAge", "minimumReleaseAgeExclude",
    "neverBuiltDependencies", "nodeLinker", "onlyBuiltDependencies", "overrides", "packageExtensions",
    "peerDependencyRules", "publicHoistPattern", "resolutionMode", "saveExact", "savePrefix", "shamefullyHoist",
    "strictDepBuilds", "strictPeerDependencies", "supportedArchitectures", "trustPolicy", "trustPolicyExclude",
    "verifyDepsBeforeRun",
})  # fmt: skip


def own_scripts(scripts: Mapping[str, str]) -> bool:
    """Whether a project's own scripts run when its packages are installed."""
    return any(name in scripts and not GIT_HOOKS.fullmatch(scripts[name]) for name in _OWN_SCRIPTS)


def read_by_packages(node: NodeApp) -> bool:
    """Whether the install script of a package makes something of the project's own files."""
    names = node.all_dependencies
    return "@prisma/client" in names and any(path.endswith("schema.prisma") for path in node.tree.paths)


def decided_by_files(node: NodeApp, members: Iterable[Member]) -> bool:
    """Whether the package.json files of a project's packages, its lock and its settings decide what is installed, and
    beside them only where the packages lie, which are no more than linked.
    """
    tree = node.tree
    if any("@prisma/client" in one.wanted for one in members):
        return False
    for one in members:
        if own_scripts(one.scripts):
            return False
        for name, spec in one.wanted.items():
            linked = node.workspaces.target(one.folder, name, spec) is not None and not spec.startswith("patch:")
            if ELSEWHERE.match(spec) and not linked:
                return False
    settings = table(node.package.get("pnpm"))
    changed = [node.package.get("overrides"), node.package.get("resolutions"), settings.get("overrides")]
    return not (
        settings.get("patchedDependencies")
        or node.package.get("patchedDependencies")
        or _ELSEWHERE_IN.search(json.dumps(changed))
        or not {key.lstrip("-") for key in _SETTING.findall(tree.text(".yarnrc"))} <= _YARN_1
        or not set(_KEY.findall(tree.text(".yarnrc.yml"))) <= _YARN
        or not set(_KEY.findall(tree.text("pnpm-workspace.yaml"))) <= {*_PNPM, "packages"}
        or _ELSEWHERE_IN.search(tree.text("pnpm-workspace.yaml"))
    )


def belongs_to_source(node: NodeApp) -> bool:
    """See the module's docstring."""
    package, tree = node.package, node.tree
    specs = [*node.all_dependencies.values(), *strings(package.get("optionalDependencies")).values()]
    settings = table(package.get("pnpm"))
    changed = json.dumps([package.get("overrides"), package.get("resolutions"), settings.get("overrides")])
    return (
        any(ELSEWHERE.match(spec) for spec in specs)
        or own_scripts(node.scripts)
        or read_by_packages(node)
        or bool(package.get("workspaces"))
        or bool(settings.get("patchedDependencies"))
        or tree.has(".pnpmfile.cjs")
        or bool(_ELSEWHERE_IN.search(changed))
        or not set(_SETTING.findall(tree.text(".npmrc"))) <= _NPMRC
        or not {key.lstrip("-") for key in _SETTING.findall(tree.text(".yarnrc"))} <= _YARN_1
        or not set(_KEY.findall(tree.text(".yarnrc.yml"))) <= _YARN
        or not set(_KEY.findall(tree.text("pnpm-workspace.yaml"))) <= _PNPM
        or bool(_ELSEWHERE_IN.search(tree.text("pnpm-workspace.yaml")))
    )
