"""What pyproject.toml cannot say: the wheel carries migrations/ inside the registry package."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=["registry*", "trainer*"], exclude=["*__pycache__*"]),
        "registry.migrations",
        "registry.migrations.initial",
        "registry.migrations.versions",
    ],
    package_dir={
        "registry.migrations": "migrations",
        "registry.migrations.initial": "migrations/initial",
        "registry.migrations.versions": "migrations/versions",
    },
)
