"""The examination of a server, step by step, from its name or its command to a list of its tools.

::

    findings = await examine("https://mcp.example.com/mcp")
"""

from trioxport.diagnosis.doctor.examination import STEPS, examine
from trioxport.diagnosis.doctor.findings import ServerFindings, StepFinding

__all__ = ["STEPS", "ServerFindings", "StepFinding", "examine"]
