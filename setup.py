"""What pyproject.toml cannot say: the wheel carries migrations/ inside the registry package."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["registry*", "trainer*"]),
        "registry.migrations",
        "registry.migrations.versions",
    ],
    package_dir={
        "registry.migrations": "migrations",
        "registry.migrations.versions": "migrations/versions",
    },
)
