"""What doctor found, as text for a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

from turbotool.doctor.examine import DoctorReport
from turbotool.programs.devices import Device, Devices


def render(report: DoctorReport) -> str:
    """The report as text for a terminal of at least 80 columns, in colours if stdout is one."""
    from rich.console import Console

    width = max(80, min(shutil.get_terminal_size((80, 24)).columns, 120))
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        for table in (_tool_table(report), _backend_table(report)):
            console.print(table)
        for line in _facts(report):
            console.print(line, markup=False, soft_wrap=True)
    return capture.get().rstrip("\n")


def _tool_table(report: DoctorReport) -> object:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table("tool", "version", "where", box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.columns[2].overflow = "fold"
    for tool in report.tools.by_name.values():
        if not tool.candidates:
            table.add_row(f"  {tool.name}", "-", f"[dim]not found (tried {escape(', '.join(tool.tried))})[/dim]")
        for index, found in enumerate(tool.candidates):
            mark = "[green]*[/green]" if found is tool.chosen else " "
            version = found.version or "[red]broken[/red]"
            note = "" if tool.serves(found) else f" ({tool.defect(found)})"
            table.add_row(f"{mark} {tool.name if index == 0 else ''}", version, escape(f"{found.path}{note}"))
    return table


def _backend_table(report: DoctorReport) -> object:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table("backend", "", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[1].overflow = "fold"
    for backend in report.backends:
        if backend.ok:
            table.add_row(backend.name, "[green]can be built[/green]")
        else:
            table.add_row(backend.name, f"{escape(backend.reason)}\n[bold]{escape(backend.remedy)}[/bold]")
    return table


def _facts(report: DoctorReport) -> list[str]:
    gib = 1 << 30
    python, tree, pin = report.python, report.tree, report.pin
    memory = f"{report.memory_free / gib:.1f} GiB" if report.memory_free is not None else "unknown"
    missing = [name for name, version in report.packages.items() if version is None]
    packages = ", ".join(f"{name} {version}" for name, version in report.packages.items() if version)
    venv = "virtual environment" if python["venv"] else "no virtual environment"
    lines = [
        f"turbotool   {python['turbotool']}, Python {python['version']} ({venv})",
        f"            {python['executable']}",
        f"packages    {packages or 'unknown'}",
        f"free        disk {report.disk_free / gib:.1f} GiB, memory {memory}",
        f"work        {report.work}",
        f"upstream    {_describe_pin(pin)}",
        f"tree        {_describe_tree(tree)}",
        *(f"build       {_describe_build(build)}" for build in report.builds),
        *(f"devices     {line}" for devices in report.devices for line in _describe_devices(devices)),
    ]
    if missing:
        lines.append(f"missing     {', '.join(missing)}: python -m pip install {' '.join(missing)}")
    lines += [f"warning     {warning}" for warning in report.warnings]
    return lines


def _describe_pin(pin: Mapping[str, object]) -> str:
    if "error" in pin:
        return str(pin["error"])
    dated = f"of {pin['date']} ({pin['age_days']} days ago)" if pin["date"] else "age unknown"
    return f"{pin['known_as']} from {pin['source']}, {dated}"


def _describe_tree(tree: Mapping[str, object]) -> str:
    if not tree["present"]:
        return "not vendored yet: turbotool vendor"
    if "error" in tree:
        return str(tree["error"]).splitlines()[0]
    applied = "the series is applied" if tree["applied"] else "the series is not applied: turbotool patch apply"
    return f"{applied}; " + (f"{tree['edited']} edited files" if tree["edited"] else "no edits")


def _describe_build(build: Mapping[str, object]) -> str:
    if not build["finished"]:
        return f"{build['backend']}: unfinished: turbotool build --backend {build['backend']}"
    return f"{build['backend']}: {build['version']}, {build['files']} files"


def _describe_devices(devices: Devices) -> list[str]:
    if devices.error:
        return [f"{devices.backend}: unknown: {devices.error}"]
    if not devices.found:
        return [f"{devices.backend}: none, says {devices.source}"]
    return [f"{devices.backend}: {_describe_device(device)}, says {devices.source}" for device in devices.found]


def _describe_device(device: Device) -> str:
    gib = 1 << 30
    if device.memory is None:
        return device.label
    free = f", {device.free / gib:.1f} GiB free" if device.free is not None else ""
    return f"{device.label}, {device.memory / gib:.1f} GiB{free}"
